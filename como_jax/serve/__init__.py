"""Policies at run time: inference, a server for robots, and the robot-side client."""
