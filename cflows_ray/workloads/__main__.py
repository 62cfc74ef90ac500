"""`python -m cflows_ray.workloads`: the workloads that there are, and their options."""

from __future__ import annotations

from cflows_ray.workloads import WORKLOADS


def listing() -> str:
    """Return a paragraph a workload: its name, what it is, its options with their defaults."""
    paragraphs = []
    for name in WORKLOADS:
        recipe = WORKLOADS[name]
        defaults = recipe.default_options()
        options = ", ".join(f"{option}={value!r}" for option, value in defaults.items())
        paragraphs.append(f"{name}: {recipe.summary}\n    {options}")
    return "\n".join(paragraphs)


if __name__ == "__main__":
    print(listing())
