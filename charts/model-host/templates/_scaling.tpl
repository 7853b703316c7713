{{/* "true" where an autoscaler sets the number of pods, be it a HorizontalPodAutoscaler of the chart's own or KEDA. */}}
{{- define "model-host.scales" -}}
{{- if or .Values.autoscaling.enabled .Values.autoscaling.keda.enabled }}true{{ end -}}
{{- end -}}

{{- define "model-host.validateScaling" -}}
{{- if include "model-host.scales" . -}}
{{- with .Values.autoscaling -}}
{{- if and .enabled .keda.enabled -}}
{{- fail "autoscaling.enabled and autoscaling.keda.enabled would both set the number of pods: keep one" -}}
{{- end -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" -}}
{{- end -}}
{{- if and .enabled (lt (int .minReplicas) 1) -}}
{{- fail "autoscaling.minReplicas is 0, but a HorizontalPodAutoscaler keeps one pod at least: use autoscaling.keda.enabled" -}}
{{- end -}}
{{- if and .enabled (not .metrics) -}}
{{- fail "autoscaling.enabled needs at least one entry in autoscaling.metrics" -}}
{{- end -}}
{{- if .enabled -}}
{{- /* KEDA's has the same name, so that it can take the chart's over. The other way round Helm would take KEDA's for its own, and lose it with the ScaledObject. */ -}}
{{- $there := lookup "autoscaling/v2" "HorizontalPodAutoscaler" $.Release.Namespace (include "model-host.fullname" $) -}}
{{- range dig "metadata" "ownerReferences" (list) (default dict $there) -}}
{{- if eq .kind "ScaledObject" -}}
{{- fail (printf "autoscaling.enabled is true, but the HorizontalPodAutoscaler %s that is there belongs to KEDA's ScaledObject and would go with it: upgrade once with both autoscalers off and replicas as many as there are pods, then with autoscaling.enabled" (include "model-host.fullname" $)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .keda.enabled (not .keda.apiServer.enabled) (not .keda.triggers) -}}
{{- fail "autoscaling.keda.enabled needs autoscaling.keda.apiServer.enabled or an entry in autoscaling.keda.triggers: there is nothing to scale by" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
