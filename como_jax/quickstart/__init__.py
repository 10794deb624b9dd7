"""Both stages of the method on one data source: its stages in order, and what they have written."""
