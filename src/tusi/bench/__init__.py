"""How fast the runtime is, beside what the machine could do at most."""
