// What a dashboard is made of, in Grafana's own words. Its `Panel` leaves open what depends on the kind of the panel.
import * as bargauge from '@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/types.gen';
import * as heatmap from '@grafana/schema/dist/types/raw/composable/heatmap/panelcfg/x/types.gen';
import * as stat from '@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen';
import * as timeline from '@grafana/schema/dist/types/raw/composable/statetimeline/panelcfg/x/types.gen';
import * as table from '@grafana/schema/dist/types/raw/composable/table/panelcfg/x/types.gen';
import * as timeseries from '@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen';
import { DataQuery } from '@grafana/schema/dist/types/veneer/common.types';
import * as dashboard from '@grafana/schema/dist/types/veneer/dashboard.types';

/** The package has no types for the queries of Prometheus; these are the keys that its editor writes. */
interface Query extends DataQuery {
  editorMode: 'code';
  expr: string;
  format: 'time_series' | 'table' | 'heatmap';
  instant: boolean;
  legendFormat: string;
  range: boolean;
}

interface Annotation extends dashboard.AnnotationQuery<Query> {
  titleFormat: string;
}

export interface Dashboard extends Omit<dashboard.Dashboard, 'annotations'> {
  annotations: { list: Annotation[] };
}

export type Targets = Query[];

export interface Options {
  bargauge?: bargauge.Options;
  heatmap?: heatmap.Options;
  stat?: stat.Options;
  'state-timeline'?: timeline.Options;
  table?: table.Options;
  timeseries?: timeseries.Options;
}

export interface Custom {
  heatmap?: heatmap.FieldConfig;
  'state-timeline'?: timeline.FieldConfig;
  table?: table.FieldConfig;
  timeseries?: timeseries.FieldConfig;
}
