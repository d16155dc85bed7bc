"""Estimators on real numbers: nearest neighbors, kernels, the Gaussian copula, Rényi, soft entropies."""
