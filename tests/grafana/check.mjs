// Checks dashboards against the JSON Schema of @grafana/schema: node check.mjs DIRECTORY DASHBOARD...
// DIRECTORY holds node_modules. Keys that Grafana does not know are misspelt, so they are faults too.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const [directory, ...files] = process.argv.slice(2).map((path) => resolve(path));
const require = createRequire(join(directory, 'package.json'));
const { createGenerator } = require('ts-json-schema-generator');
const Ajv = require('ajv');

const types = join(dirname(fileURLToPath(import.meta.url)), 'types.ts');
const tsconfig = join(directory, 'tsconfig.json');
const paths = { '*': [join(directory, 'node_modules', '*')] };
writeFileSync(tsconfig, JSON.stringify({ compilerOptions: { baseUrl: directory, paths, moduleResolution: 'node', strict: true }, files: [types] }));
const generator = createGenerator({ path: types, tsconfig, expose: 'none', skipTypeCheck: true });

const ajv = new Ajv({ allErrors: true, strict: false });
const schemas = ['Dashboard', 'Targets', 'Options', 'Custom'].map((type) => [type, ajv.compile(generator.createSchema(type))]);
const validators = Object.fromEntries(schemas);

const faults = [];
function check(type, value, place) {
  if (!validators[type](value)) {
    faults.push(...validators[type].errors.map(({ instancePath, message, params }) => `${place}${instancePath} ${message} ${JSON.stringify(params)}`));
  }
}

for (const file of files) {
  const dashboard = JSON.parse(readFileSync(file, 'utf8'));
  check('Dashboard', dashboard, file);
  for (const { type, title, targets, options, fieldConfig } of dashboard.panels.filter((panel) => panel.type !== 'row')) {
    check('Targets', targets, `${file} "${title}" `);
    check('Options', { [type]: options }, `${file} "${title}" `);
    const custom = fieldConfig.defaults.custom;
    if (custom) check('Custom', { [type]: custom }, `${file} "${title}" `);
  }
}
if (faults.length) {
  console.error(faults.join('\n'));
  process.exit(1);
}
