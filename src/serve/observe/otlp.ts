/**
 * Sends spans of requests to an OpenTelemetry collector over OTLP/HTTP: a server span per request, with a child per
 * stage. Its packages are imported only if tracing is on. If the collector is unreachable, spans are lost, not
 * requests.
 */
import type { Span } from "@opentelemetry/api";
import { readTraceparent, type TraceContext, type Tracing } from "./trace.ts";

/** How long a shutdown may wait for the collector. */
const exportTimeoutMs = 2_000;

/**
 * @param endpoint base URL of the collector, such as http://127.0.0.1:4318; empty: taken from the environment
 *   (OTEL_EXPORTER_OTLP_ENDPOINT and similar)
 * @param version of the software
 */
export async function openOtlp(endpoint: string, version: string): Promise<Tracing> {
  const [api, { OTLPTraceExporter }, { detectResources, envDetector, resourceFromAttributes }, sdk] = await Promise.all(
    [
      import("@opentelemetry/api"),
      import("@opentelemetry/exporter-trace-otlp-http"),
      import("@opentelemetry/resources"),
      import("@opentelemetry/sdk-trace"),
    ],
  );
  const exporter = new OTLPTraceExporter({
    timeoutMillis: exportTimeoutMs,
    ...(endpoint === "" ? {} : { url: `${endpoint.replace(/\/+$/, "")}/v1/traces` }),
  });
  const provider = new sdk.TracerProvider({
    resource: resourceFromAttributes({
      "service.name": "gr2",
      "service.version": version,
      "service.instance.id": String(process.pid),
    }).merge(detectResources({ detectors: [envDetector] })),
    spanProcessors: [new sdk.BatchSpanProcessor({ exporter })],
  });
  const tracer = provider.getTracer("gr2");
  const contextFor = (span: Span): TraceContext => {
    const { traceId, spanId, traceFlags } = span.spanContext();
    return { traceId, spanId, flags: traceFlags };
  };
  return {
    begin(name, header) {
      const parent = readTraceparent(header);
      const from = parent
        ? api.trace.setSpanContext(api.ROOT_CONTEXT, { ...parent, traceFlags: parent.flags, isRemote: true })
        : api.ROOT_CONTEXT;
      const startMs = performance.timeOrigin + performance.now();
      const span = tracer.startSpan(name, { kind: api.SpanKind.SERVER, startTime: startMs }, from);
      return {
        context: contextFor(span),
        end({ attributes, stages, problem }) {
          span.setAttributes(attributes);
          if (problem !== undefined) span.setStatus({ code: api.SpanStatusCode.ERROR, message: problem });
          const within = api.trace.setSpan(from, span);
          let at = startMs;
          for (const [stage, ms] of Object.entries(stages)) {
            tracer.startSpan(stage, { startTime: at }, within).end(at + ms);
            at += ms;
          }
          span.end(performance.timeOrigin + performance.now());
        },
      };
    },
    close: () => provider.shutdown().catch(() => {}),
  };
}
