"""Judging finished pictures and the verifiers that chose them: rules, figures, intervals."""
