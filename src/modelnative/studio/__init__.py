"""What people look at: live terminal view, HTML report."""
