"""A local page over one measurement: any budget at once, the command, its run, and text before and after."""
