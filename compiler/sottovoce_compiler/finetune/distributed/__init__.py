"""Training in several processes: what carries their messages (`world`), how each holds the model (`replicated`,
`sharded`, `zero`), which of these suits a model and a machine (`presets`), and how a command finds itself among others
(`launch`).

Every way gives the losses of one process: a step's gradient is that of the mean over all its labelled tokens, whoever
computed them.
"""
