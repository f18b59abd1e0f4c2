"""The Python interface, offered as ``mrisem.load`` and so on: it calls what the verbs call.

    import mrisem

    scan = mrisem.load("file_brain_AXT2_5000.h5").undersample(mrisem.masks.gaussian(4))
    prior = mrisem.semantic_prior("vgg16", images="DIR", acquisition="AXT2")
    cg, guided = mrisem.cg_sense(scan), mrisem.fit(scan, "unrolled", prior=prior, iterations=50)
    mrisem.score(scan, cg, guided)
    mrisem.show(scan, cg, guided)

Every function composes the configuration of a verb and gives that verb's numbers. ``overrides`` of
any function are options of the command line: ``{"prior.balance": 0.1}``, or
``["prior.balance=0.1"]``.
"""
