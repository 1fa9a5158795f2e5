"""Sends a counter, a histogram, an up-down counter and a gauge with OpenTelemetry's own SDK: otlp.py URL http|grpc."""
import base64
import sys

from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

address, way, user, password = sys.argv[1:]
headers = (("authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()),)
if way == "grpc":
    import grpc
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    exporter = OTLPMetricExporter(endpoint=address, insecure=True, headers=headers, compression=grpc.Compression.Gzip)
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    exporter = OTLPMetricExporter(
        endpoint=f"http://{address}/otlp/v1/metrics", headers=dict(headers), compression=Compression.Gzip
    )
resource = Resource({"service.name": way, "service.namespace": "test", "service.instance.id": "i1", "host.name": "h"})
reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
provider = MeterProvider(resource=resource, metric_readers=[reader])
meter = provider.get_meter("test")
meter.create_counter("http.requests", unit="{request}").add(3, {"a.b": "x"})
meter.create_histogram("http.duration", unit="s").record(0.3, {"route": "/a"})
meter.create_up_down_counter("queue.size").add(-2)
meter.create_observable_gauge("cpu.usage", callbacks=[lambda _: [Observation(0.5)]], unit="1")
provider.force_flush()
provider.shutdown()
