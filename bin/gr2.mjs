#!/usr/bin/env node
// Runs the TypeScript command line through tsx, in this very process: a signal to `gr2` reaches what it runs.
import { register } from "tsx/esm/api";

register();
await import("../src/cli/main.ts");
