"""One network a file, as pure functions of parameters and inputs."""

__all__ = ()  # each is found by its name, in the registries
