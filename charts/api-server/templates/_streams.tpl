{{/* Refuses an address whose answers go through KServe's batcher, where the cluster can be asked: the agent in front of it can break off
a stream (ADR 7), and every chat may be one. */}}
{{- define "api-server.validateStreams" -}}
{{- $urls := list .Values.modelHost.url -}}
{{- range .Values.models }}{{- range .addresses }}{{- $urls = append $urls (default "" .url) }}{{- end }}{{- end -}}
{{- range compact $urls -}}
{{- $labels := splitList "." (first (splitList ":" (urlParse .).host)) -}}
{{- $name := first $labels -}}
{{- if and (hasSuffix "-predictor" $name) ($.Capabilities.APIVersions.Has "serving.kserve.io/v1beta1/InferenceService") -}}
{{- $namespace := ternary (join "" (slice $labels 1 2)) $.Release.Namespace (gt (len $labels) 1) -}}
{{- $service := lookup "serving.kserve.io/v1beta1" "InferenceService" $namespace (trimSuffix "-predictor" $name) -}}
{{- if dig "spec" "predictor" "batcher" false $service -}}
{{- fail (printf "%s leads through KServe's batcher, which can break off streamed answers: name the InferenceService (modelHost.name, or modelHost in models), which is asked past it, or turn its batcher off" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
