"""Commands, each a thin argument parser over one function of the package."""
