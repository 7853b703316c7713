{{/* The alerts of files/alerts.yaml for this release; the operator's job of a PodMonitor is its namespace and name. */}}
{{- define "model-host.alerts" -}}
{{- $own := default (printf "job=%q" (printf "%s/%s" .Release.Namespace (include "model-host.fullname" .))) .Values.metrics.prometheusRule.selector -}}
{{- $without := .Values.metrics.prometheusRule.disabled -}}
{{- /* Where no pod is a number of pods like any other; the API server's ApiServerNoModelHost says when somebody asks in vain. */ -}}
{{- if and .Values.autoscaling.keda.enabled (eq (int .Values.autoscaling.minReplicas) 0) }}{{- $without = append $without "ModelHostAbsent" }}{{- end -}}
{{- $rules := list -}}
{{- range (.Files.Get "files/alerts.yaml" | fromYaml).groups -}}
{{- range .rules -}}
{{- if not (has .alert $without) -}}
{{- $expr := .expr | replace (printf "job=%q" "model-host") $own -}}
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

{{- define "model-host.validateMetrics" -}}
{{- if and .Values.metrics.prometheusRule.enabled (not .Values.metrics.podMonitor.enabled) (not .Values.metrics.prometheusRule.selector) -}}
{{- fail "metrics.prometheusRule.enabled needs metrics.podMonitor.enabled, or metrics.prometheusRule.selector with the labels that your own scraping gives: the alerts would find nothing to watch" -}}
{{- end -}}
{{- end -}}
