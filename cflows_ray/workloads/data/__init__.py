"""One data set a file: where its arrays come from and how they are prepared."""

__all__ = ()  # each is found by its name, in the registries
