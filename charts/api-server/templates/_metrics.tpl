{{/* The alerts of files/alerts.yaml for this release; the operator's job of a ServiceMonitor is the Service's name. */}}
{{- define "api-server.alerts" -}}
{{- $own := default (printf "namespace=%q,job=%q" .Release.Namespace (include "api-server.fullname" .)) .Values.metrics.prometheusRule.selector -}}
{{- $rules := list -}}
{{- range (.Files.Get "files/alerts.yaml" | fromYaml).groups -}}
{{- range .rules -}}
{{- if not (has .alert $.Values.metrics.prometheusRule.disabled) -}}
{{- $expr := .expr | replace (printf "job=%q" "api-server") $own -}}
{{- if hasKey $.Values.metrics.prometheusRule.thresholds .alert -}}
{{- $expr = regexReplaceAll "[0-9.]+$" $expr (toString (get $.Values.metrics.prometheusRule.thresholds .alert)) -}}
{{- end -}}
{{- $_ := set . "expr" $expr -}}
{{- $_ := set .annotations "runbook_url" (replace "docs/runbook.md" $.Values.metrics.prometheusRule.runbookUrl .annotations.runbook_url) -}}
{{- $rules = append $rules . -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $rules -}}
{{- end -}}

{{- define "api-server.validateMetrics" -}}
{{- if and .Values.metrics.prometheusRule.enabled (not .Values.metrics.serviceMonitor.enabled) (not .Values.metrics.prometheusRule.selector) -}}
{{- fail "metrics.prometheusRule.enabled needs metrics.serviceMonitor.enabled, or metrics.prometheusRule.selector with the labels that your own scraping gives: the alerts would find nothing to watch" -}}
{{- end -}}
{{- end -}}
