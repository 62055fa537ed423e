"""Names of the files that stages leave, in artefacts and in a results folder."""

# artefact of training
CHECKPOINT = "checkpoint.safetensors"
PREDICTIONS = "predictions.parquet"
SCORES = "easiness.npy"

# artefact of profiling; copied into results
PROFILE = "profile.parquet"

# artefact of simulation; copied into results
RECORDS = "records.parquet"
RUNS = "runs.csv"
NODES = "nodes.csv"
DEADLINE_SWEEP = "deadline_sweep.csv"
EXIT_ACCURACY = "exit_accuracy.csv"
SIMULATION_FILES = (RECORDS, RUNS, NODES, DEADLINE_SWEEP, EXIT_ACCURACY)

# results only
MANIFEST = "manifest.json"
SUMMARY_CSV = "summary.csv"
SUMMARY_JSON = "summary.json"
DIFFERENCES = "differences.csv"
FIGURES = "figures"
REPORT = "report.md"
