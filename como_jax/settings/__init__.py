"""What a command line and a config may say.

Reading values, what each key may hold, entries of mixtures, paths, the help text.
"""
