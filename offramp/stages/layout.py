"""Names of the files that stages leave, in artefacts and in a results folder."""

# artefact of training
CHECKPOINT = "checkpoint.safetensors"
PREDICTIONS = "predictions.parquet"
SCORES = "easiness.npy"

# artefact of its own, where a policy is fitted
VALIDATION_PREDICTIONS = "predictions_validation.parquet"

# artefact of profiling; copied into results
PROFILE = "profile.parquet"

# artefact of simulation; copied into results
RUNS = "runs.csv"
NODES = "nodes.csv"
GROUPS = "groups.csv"
DEADLINE_SWEEP = "deadline_sweep.csv"
EXIT_ACCURACY = "exit_accuracy.csv"
ALWAYS_SIMULATED = (RUNS, NODES, GROUPS, DEADLINE_SWEEP, EXIT_ACCURACY)

# and these, where the scenario has or asks for them
RECORDS = "records.parquet"
PERCENTILES = "latency_percentiles.csv"
DEVICES = "devices.csv"
LINKS = "links.csv"
ENERGY = "energy.csv"
FAULTS = "faults.csv"
FAULT_TIMES = "fault_times.csv"
NODE_TELEMETRY = "telemetry_nodes.csv"
REQUEST_TELEMETRY = "telemetry_requests.csv"
SOMETIMES_SIMULATED = (
    RECORDS,
    PERCENTILES,
    DEVICES,
    LINKS,
    ENERGY,
    FAULTS,
    FAULT_TIMES,
    NODE_TELEMETRY,
    REQUEST_TELEMETRY,
)
TRACES = "trace-*.json"

# results only: what a sweep, and a search, have done
POINTS = "points.sqlite"
KEPT_TRIALS = "trials.sqlite"
MANIFEST = "manifest.json"
KEPT_PREDICTIONS = "predictions"
SUMMARY_CSV = "summary.csv"
SUMMARY_JSON = "summary.json"
DIFFERENCES = "differences.csv"
FIGURES = "figures"
TABLES = "tables"
REPORT = "report.md"
REPORT_HTML = "report.html"
