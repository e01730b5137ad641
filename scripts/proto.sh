#!/usr/bin/env bash
# Generates code from proto/ with one compiler (Python's grpc_tools.protoc): the worker's for both sides, the service's for
# TypeScript; and builds what the package exports: the client (dist/client), what plug-ins import (dist/plugins).
set -euo pipefail
cd "$(dirname "$0")/.."
worker=src/worker/generated client=src/client/generated py=python_worker/gr2_worker/generated
rm -rf "$worker" "$client" "$py" dist/client dist/plugins && mkdir -p "$worker" "$client" "$py"
options=outputServices=grpc-js,esModuleInterop=true,env=node,oneof=unions-value,enumsAsLiterals=true,exportCommonSymbols=false,useDate=false,importSuffix=.ts,forceLong=number,outputJsonMethods=false
protoc() { .venv/bin/python -m grpc_tools.protoc -I proto --plugin=protoc-gen-ts_proto=node_modules/.bin/protoc-gen-ts_proto "$@"; }
protoc --ts_proto_out="$worker" --ts_proto_opt="$options" \
  --python_out="$py" --grpc_python_out="$py" --pyi_out="$py" gr2/v1/worker.proto
protoc --ts_proto_out="$client" --ts_proto_opt="$options" gr2/v1/rerank.proto
node_modules/.bin/tsc -p tsconfig.client.json
node_modules/.bin/tsc -p tsconfig.plugins.json
