"""Running a manifest again: are the results identical, or else compatible, and what moved?"""
