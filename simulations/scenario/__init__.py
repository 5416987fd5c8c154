"""What is simulated: one scenario, which every tier reads, and what a run of it gives back."""
