"""Plug-ins from outside the package, each one file that takes only from the faces of rooms."""
