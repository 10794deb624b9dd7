"""Is a latent motion or appearance? Scores of latents z on an exam set, with numpy alone."""
