"""Sources of rows of a known data set, or of texts spoken by a synthesiser."""
