"""Learning: one object on a base (finetune), or a base from pictures (pretrain)."""
