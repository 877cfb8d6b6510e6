"""Makes trained transformers smaller and faster after training, without fine-tuning and without gradients."""
