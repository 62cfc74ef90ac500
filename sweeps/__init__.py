"""Runnable studies, one a file: data and a three-line main."""
