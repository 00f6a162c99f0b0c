"""The proof: tiny worlds whose best policy is known, and how near the trainers come."""
