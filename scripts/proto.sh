#!/usr/bin/env bash
# Generates TypeScript and Python code from proto/ with one compiler (Python's grpc_tools.protoc).
set -euo pipefail
cd "$(dirname "$0")/.."
ts=src/worker/generated py=python_worker/gr2_worker/generated
rm -rf "$ts" "$py" && mkdir -p "$ts" "$py"
.venv/bin/python -m grpc_tools.protoc -I proto \
  --plugin=protoc-gen-ts_proto=node_modules/.bin/protoc-gen-ts_proto --ts_proto_out="$ts" \
  --ts_proto_opt=outputServices=grpc-js,esModuleInterop=true,env=node,oneof=unions-value,enumsAsLiterals=true,exportCommonSymbols=false,useDate=false,importSuffix=.ts,forceLong=number,outputJsonMethods=false \
  --python_out="$py" --grpc_python_out="$py" --pyi_out="$py" gr2/v1/worker.proto
