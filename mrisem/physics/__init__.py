"""Physics of multi-coil Cartesian MRI in pure torch."""
