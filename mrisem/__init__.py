"""mrisem: undersampled MRI reconstruction guided by a frozen vision-language model."""

__version__ = "0.1.0"
