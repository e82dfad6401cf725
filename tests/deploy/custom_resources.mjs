// Checks custom resources (a JSON list on standard input) against their definitions, and prints one line for each
// problem. The definitions' own validators know values and what is required; TypeScript knows which fields there are (a
// cluster would drop any other one silently). Runs from a folder that has the packages of package.json.
import { unlinkSync, writeFileSync } from "node:fs";
import { text } from "node:stream/consumers";
import ts from "typescript";

const packages = {
  "keda.sh": "@kubernetes-models/keda",
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
  "gateway.networking.k8s.io": "@kubernetes-models/gateway-api",
};

const resources = JSON.parse(await text(process.stdin));
const names = [];
const typed = [];
for (const [at, resource] of resources.entries()) {
  const name = `${resource.kind}/${resource.metadata.name}`;
  const [group, version] = resource.apiVersion.split("/");
  const module = `${packages[group]}/${group}/${version}/${resource.kind}`;
  const kind = (await import(module).catch(() => ({})))[resource.kind];
  if (!kind) {
    console.log(`${name}: ${resource.apiVersion} ${resource.kind} has no definition here`);
    continue;
  }
  try {
    new kind(resource).validate();
  } catch (error) {
    console.log(`${name}: ${error.message}`);
  }
  names.push(name);
  typed.push(`import type { I${resource.kind} as T${at} } from ${JSON.stringify(module)};`);
  typed.push(`export const r${at}: T${at} = ${JSON.stringify(resource)};`);
}

const file = `resources-${process.pid}.ts`;
writeFileSync(file, typed.join("\n"));
const options = {
  noEmit: true,
  strict: true,
  skipLibCheck: true,
  types: [],
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
};
for (const { file: source, start, messageText } of ts.getPreEmitDiagnostics(ts.createProgram([file], options))) {
  const line = source ? source.getLineAndCharacterOfPosition(start).line : 0;
  console.log(`${names[line >> 1]}: ${ts.flattenDiagnosticMessageText(messageText, " ")}`);
}
unlinkSync(file);
