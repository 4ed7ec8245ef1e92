"""The diffusion model: weights, conditioner, attention, formulas, sampling."""
