"""How fast this machine trains: environment, rollout, update and whole runs."""
