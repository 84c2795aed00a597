"""What each subcommand of ``seeddb`` does: functions that return data, print nothing and never exit."""
