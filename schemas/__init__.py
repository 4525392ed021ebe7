"""The contracts: frozen shapes with validation and no behaviour; imports nothing of ours."""
