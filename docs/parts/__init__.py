"""The generated parts of the documentation, a module for what belongs together; each names its own in ``PARTS``."""
