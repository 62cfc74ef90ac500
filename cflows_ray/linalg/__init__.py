"""Pure linear algebra on arrays and operators: eigenpairs, svec, the complementarity problem."""
