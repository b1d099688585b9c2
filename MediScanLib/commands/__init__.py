"""Commands: one subcommand of the command line a file; heavy imports happen inside the commands."""
