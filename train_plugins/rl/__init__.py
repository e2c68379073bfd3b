"""Reinforcement learning with verifiable rewards: rollouts, advantages, PPO, GRPO and RLOO."""
