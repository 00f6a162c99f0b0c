"""What a policy acts in: environments of the user's in processes of their own, and calls of tools in its text."""
