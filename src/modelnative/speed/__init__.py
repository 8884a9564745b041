"""How fast this machine is: environment, rollout, update and training."""
