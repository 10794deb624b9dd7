"""Policies at run time: one that infers, a server that speaks to robots, and the robot-side
client.
"""
