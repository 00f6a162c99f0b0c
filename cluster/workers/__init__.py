"""Ray actors: shells around a learner, a sampler, a scorer; and checks of their hosts."""
