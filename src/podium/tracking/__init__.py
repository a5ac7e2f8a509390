"""Records runs in MLflow and reads them back; imports no other room."""

from podium.stores import restrain_mlflow

# MLflow reads its telemetry switch when it is imported, so this comes before any module of the room.
restrain_mlflow()
