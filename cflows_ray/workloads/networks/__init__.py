"""One network a file, as pure functions of parameters and inputs."""
