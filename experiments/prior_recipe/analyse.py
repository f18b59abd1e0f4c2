"""How many scans does each recipe harm? Counted as `prior_worth` counts."""

from run import own_module

analyse = own_module("prior_worth", "analyse").analyse
